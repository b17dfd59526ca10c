"""OpenVINO: export to its IR, an XML file with the weights beside it, and inference on x86 and Arm CPUs."""
