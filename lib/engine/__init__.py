"""What makes the study fast and safe, and could be exchanged without changing a result.

store      what a run left, whole or not at all          compiled   norms and blocks for CPUs
jobs       many runs, side by side or on a cluster       machine    devices, and what is written down about them
folders    image folders, read and checked               weights    what a run starts from
verify     stored models scored again                    files      written whole or not at all
commands   command lines whose errors are one sentence
"""
