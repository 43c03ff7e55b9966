"""What each op's quantization does to the outputs: MSE, gradients, Hessian."""
