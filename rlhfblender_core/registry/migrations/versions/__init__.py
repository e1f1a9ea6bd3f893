"""One module per revision of the tables. They never import the models, which change later."""
