"""What ``bootdiff sample`` opens and lays out: a run or a student folder, its teacher, and what is asked of them."""
