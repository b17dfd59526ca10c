"""Networks, precisions and back ends in one table: accuracy, agreement with fp32, latency, size, memory.

models x precisions x back ends --cached.py--> files --running.py--> all timed in turn --> latencies --> rows
                                                 +--peak_memory.py, judging.py: one after the other ------^
"""
