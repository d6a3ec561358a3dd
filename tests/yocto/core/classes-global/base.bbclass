python base_do_fetch() {
    bb.fetch2.Fetch(d.getVar("SRC_URI").split(), d).download()
}
base_do_configure() {
    :
}
base_do_compile() {
    :
}
base_do_install() {
    :
}
addtask fetch
addtask configure after do_fetch
addtask compile after do_configure
addtask install after do_compile

EXPORT_FUNCTIONS do_fetch do_configure do_compile do_install
