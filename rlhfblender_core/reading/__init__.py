"""Reading a data set: what people do with episodes once they are there. Nothing here writes."""
