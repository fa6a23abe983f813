"""The change log and the decision log, and the trees over them."""
