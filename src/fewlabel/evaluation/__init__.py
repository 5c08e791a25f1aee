"""How good a model is, how sure that is, and how many labels were saved."""
