"""Students as files, and samplers under one contract."""
