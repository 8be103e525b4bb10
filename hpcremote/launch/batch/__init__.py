"""Batch systems: engines that are queued, and what becomes of their jobs."""
