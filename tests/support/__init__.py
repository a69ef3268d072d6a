"""What tests share: servers, small models, plain references of what is tested."""
