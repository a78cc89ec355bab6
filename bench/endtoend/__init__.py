"""The end-to-end bench: penstock beside native logical replication, between servers of its own. Begin with suite.py."""
