"""The evidence for the searches' claims on CIFAR-10: a plan, a resumable run, and the tables of docs/evidence.md.

plan.yaml --> plan.py      images.py: CIFAR-10 on the device
                |              |
                +--> alone.py, supernets.py: trainings of one process
                          |
                     tasks.py: the tasks of a worker
                          |
                     workers.py: many processes on one device --> smoke.py: how fast they are together
                          |
                     run.py: the missing jobs, the most important first --> results.jsonl
                                                                                |
                                       answers.py, power.py, ranking.py --> tables.py
"""
