"""What is embedded: photos and episodes, their splits, their classes and what is said of them."""
