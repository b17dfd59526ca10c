"""Benchmarks: each prints ratios against a peer in the same run; results/ has what they printed."""
