"""The systems that are compared, one per file: phases, how their scores are combined, citation, published accuracies."""
