SUMMARY = "Stands in for the Mender client, to see what is appended to it"
LICENSE = "Apache-2.0"

PACKAGES =+ "mender-auth mender-update"
