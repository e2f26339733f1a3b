"""How a Kafka cluster is reached, asked about itself and read: what its edges and the store in a topic share."""
