"""A real Apache Kafka for the tests and the benchmark."""
