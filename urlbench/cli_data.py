"""`urlbench data`: the data sets that offline suites pretrain on."""
