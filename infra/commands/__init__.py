"""One file a sub-command of `biovfm`; imported only when the sub-command runs."""
