"""Finding passages: analysis of text, sparse weights, fusion of dense and sparse, the search itself."""
