"""A bounded MQTT 5 client on mqtt5, for what brokers are told."""
