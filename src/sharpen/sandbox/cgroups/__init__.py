"""Limits from cgroups (version 2): where they can be had, and one cgroup for each run."""
