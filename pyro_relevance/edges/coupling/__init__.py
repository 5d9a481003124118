r"""Which channels of a network must be cut together, for any network that ``torch.export`` traces.

Every position of a channel axis gets a label, and the labels travel through the graph as data do:
an operator that only moves elements (reshape, permute, slice, concatenate, roll, ...) is run on the
labels themselves. Where two tensors meet element by element (residual sum, product of
squeeze-and-excitation, BatchNorm's parameters) the labels that meet are joined, and must be cut
together. A layer that mixes channels *reads* the labels of its columns and makes new ones. What
reads all channels at once (LayerNorm, softmax over channels) makes its labels impossible to cut
exactly, with a reason.
"""
