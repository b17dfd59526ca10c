"""OpenVINO: networks as its IR, a file of XML with the weights beside it, and on x86 and Arm CPUs."""
