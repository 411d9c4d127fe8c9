"""The vector index: in this process (Qdrant Edge) or on a Qdrant server, behind one port. Always rebuildable from the
database.
"""
