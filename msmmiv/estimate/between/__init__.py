"""The regression of itt on compliances across sites, with sampling errors in both and a direct effect left free."""
