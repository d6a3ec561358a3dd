//! The Mender Artifact format, version 3.
