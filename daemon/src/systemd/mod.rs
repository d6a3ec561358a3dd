//! Adapters to systemd over its D-Bus API.
