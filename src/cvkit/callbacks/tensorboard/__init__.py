"""What ``TensorBoard`` is made of: where events go, and what is drawn, counted, recorded and described for them."""
