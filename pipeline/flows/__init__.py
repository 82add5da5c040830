"""Orchestration of the DVC graph by Prefect."""
