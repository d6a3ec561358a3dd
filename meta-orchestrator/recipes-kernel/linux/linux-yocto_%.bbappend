# Only where the distribution asks for it: adding the layer must not change the kernel.
# nooelint: oelint.spaces.lineend
require ${@bb.utils.contains('DISTRO_FEATURES', 'orchestrator', 'orchestrator-kernel.inc', '', d)}
# nooelint: oelint.spaces.lineend
require ${@bb.utils.contains('DISTRO_FEATURES', 'orchestrator-vplc', 'orchestrator-vplc-kernel.inc', '', d)}
