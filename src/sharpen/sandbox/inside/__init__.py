"""The code that runs inside: the zygote, the supervisors and the jobs. Standard library only.

`start.py` loads this folder under another name, so nothing here may import the package that contains it.
"""
