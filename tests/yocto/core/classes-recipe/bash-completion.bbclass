PACKAGE_BEFORE_PN += "${PN}-bash-completion"
FILES:${PN}-bash-completion = "${datadir}/bash-completion"
