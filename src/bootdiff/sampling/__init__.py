"""The work of ``bootdiff sample``: it opens a run or a student folder, its teacher where needed, and draws samples."""
