CLASSOVERRIDE = "class-native"

python native_virtclass_handler () {
    if "native" in (d.getVar("BBEXTENDCURR") or ""):
        d.setVar("PN", d.getVar("PN") + "-native")
}
addhandler native_virtclass_handler
native_virtclass_handler[eventmask] = "bb.event.RecipePreFinalise"
