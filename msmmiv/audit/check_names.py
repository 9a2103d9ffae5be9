"""The checks by name, each in a line: what ``assumptions/*.toml`` may list and what the audit runs."""

from __future__ import annotations

from typing import Final

__all__ = ["CHECK_NAMES"]

#: Name of a check (file of `msmmiv.diagnose`, dot, what is checked) to what it does.
CHECK_NAMES: Final[dict[str, str]] = {
    "balance.arm_shares": "share of people in each arm, site by site, against the planned shares",
    "balance.attrition_by_arm": "rows lost to missing values, by arm within sites",
    "balance.covariates_by_site": "standardised differences of pre-treatment covariates in every site",
    "balance.covariates_joint": "all pre-treatment covariates at once, by the randomisation variance within sites",
    "dose.curvature": "mediators on the dose and its square within sites",
    "dose.neighbouring_arms": "equal slopes of the mediators between neighbouring arms",
    "independence.cascade_slope": "compliance with one mediator on compliance with another, errors in both corrected",
    "independence.compliance_correlations": "correlations of compliances across sites, sampling error taken out",
    "independence.compliance_on_covariates": "compliance on site covariates",
    "independence.mediator_separation_within_arm": "correlation of mediators within site and arm",
    "independence.overidentification": "Hansen's J, which is Cochran's Q of what the mediators leave of itt",
    "independence.share_treated_on_control_means": "control means on the share treated, across sites",
    "independence.site_covariates": "site covariates that go with compliance and with the effect",
    "independence.site_size": "the effect against the size of the site",
    "independence.weights_and_effects": "averages of site effects under different weights",
    "influence.leave_one_site_out": "coefficients without each site in turn",
    "linearity.corrected_curvature": "itt on compliance and its square, errors in compliance corrected (one mediator)",
    "linearity.effect_by_control_mean": "effect of the mediator against its level among controls",
    "linearity.origin_intercept": "whether the surface of itt on compliances goes through the origin",
    "linearity.reset": "itt on the fitted index and its square, errors corrected (several mediators)",
    "linearity.vech": "itt on all squares and products of compliances, errors corrected",
    "linearity.zero_compliance_sites": "itt where the treatment moves no mediator",
    "monotonicity.density": "inequalities between arms that no defiers and exclusion imply for the outcome",
    "monotonicity.signs": "no site with a negative compliance",
    "rank.cluster_level_strength": "first-stage strength with clusters as rows",
    "rank.compliance_variance": "variation of compliance across sites beyond noise",
    "rank.counts": "sites against mediators",
    "rank.cragg_donald": "Cragg and Donald's F",
    "rank.kleibergen_paap": "Kleibergen and Paap's rank test",
    "rank.noise_floor_eigenvalues": "strength of the weakest combination of mediators against noise alone",
    "rank.sanderson_windmeijer": "first-stage F of each mediator given the others",
    "sensitivity.compliance_effect_correlation": "correlation across sites that would change the conclusion",
    "sensitivity.direct_effect_line": "direct effect that would change the conclusion",
    "sensitivity.omitted_mediator": "what leaving out an observed mediator does, as a yardstick",
    "sensitivity.within_site_covariance": "covariance within sites that would change the conclusion",
    "within_site.subgroups": "itt against compliance over subgroups inside sites",
}
