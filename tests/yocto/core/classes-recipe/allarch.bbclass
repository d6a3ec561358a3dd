# Of no consequence for what is looked at here.
