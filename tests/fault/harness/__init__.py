"""Faults on purpose: tasks are sent, something is killed, cut or frozen, and every task is counted.

``python -m tests.fault.harness`` runs scenarios and prints a table; docs/reliability.md has what was measured.
"""
