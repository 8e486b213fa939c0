"""What runs inside: the zygote, the supervisors and the jobs. Standard library only.

`start.py` loads this folder under a name of its own, so nothing here may import the package it lies in.
"""
