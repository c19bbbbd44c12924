"""Descriptors into one vector for each video: PCA, Gaussian mixtures, Fisher vectors; and linear SVMs on such vectors."""
