"""Search among the cases of a collection by the features of their images."""
