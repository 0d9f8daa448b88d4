"""Metrics of deployments: sessions, switches, decisions and status."""

from __future__ import annotations

from trimtab_server.metrics.family import SECONDS, Family, defined_in

WITHOUT_METRICS = Family(
    "trimtab_deployments_without_metrics",
    "Deployments without series of their own, since others have as many as the setting "
    "max_deployment_series allows. Metrics without the label deployment still count them.",
)
SESSIONS = Family("trimtab_sessions{deployment}", "Open sessions of workers.")
SESSIONS_REFUSED = Family(
    "trimtab_sessions_refused_total{deployment}",
    "Sessions that were refused to workers. The server's log has the reason. The deployment is "
    "empty if it does not exist, or if the worker had not named it yet.",
)
MESSAGES = Family(
    "trimtab_session_messages_total{kind}",
    "Messages received from workers, by kind.",
)
DELAYED = Family(
    "trimtab_session_messages_delayed_total{deployment}",
    "Messages from workers that were read late because the worker sends more than "
    "messages_per_second.",
)
REPORTS = Family(
    "trimtab_reports_total{deployment,result}",
    "Load reports from workers, by result: counted (accepted); its tokens cannot be assigned to a "
    "time (gap); already counted (repeated); or its counts or steps went backwards, or its shape "
    "is wrong (refused).",
)
IGNORED = Family(
    "trimtab_answers_ignored_total{deployment}",
    "Answers from workers that the server was not waiting for: too late, or about another version "
    "or digest.",
)
SWITCHES = Family(
    "trimtab_switches_total{deployment,outcome}",
    "Switches by outcome: offered, committed, applied by all workers, or aborted.",
)
ABORTS = Family(
    "trimtab_switch_aborts_total{deployment,cause}",
    "Aborted switches by cause: a worker refused (refused), not all were prepared in time (late), "
    "a session ended (lost), the deployment was paused (paused), or the server shut down (drain) "
    "or restarted (restart).",
)
PHASE = Family(
    "trimtab_switch_phase{deployment,phase}",
    "1 for the current phase of the switch (offered, committed, aborting; idle if no switch is "
    "open), 0 for the other phases.",
)
AGE = Family(
    "trimtab_switch_phase_age_seconds{deployment}",
    "Time since the open switch entered its phase; 0 if no switch is open. A committed switch "
    "waits for the engine's next step, so an idle engine makes it old.",
)
PAUSED = Family(
    "trimtab_deployment_paused{deployment}",
    "1 if the deployment is paused: nothing is offered until an operator resumes it. Else 0.",
)
ALARMS = Family(
    "trimtab_alarms_total{deployment}",
    "Alarms: events that an operator should look at. The server's log has the reason of each. "
    "Those of deployments without series of their own have an empty deployment.",
)
DECISIONS = Family(
    "trimtab_decisions_total{deployment,reason}",
    "Decisions of the online loop by reason. Experts move by the moves that gain most (improved) "
    "or to a new plan because the load has shifted (replanned). They stay because of: not_ready, "
    "too_soon, no_load, not_enough_evidence, cooldown, balanced, small_gain, too_costly.",
)
PREDICTED = Family(
    "trimtab_predicted_imbalance_ratio{deployment,of}",
    "Imbalance (heaviest GPU / mean GPU, mean over layers with load) that the load estimate "
    "predicted at the last decision: of the current placement (in_force; in shadow mode, the "
    "simulated one) and of the planned one (planned; equal if nothing was planned). 0 before the "
    "first decision.",
)
EVIDENCE = Family(
    "trimtab_evidence_tokens{deployment}",
    "Effective number of tokens per layer behind the load estimate at the last decision: of the "
    "median layer that has load.",
)
OVERDISPERSION = Family(
    "trimtab_overdispersion_ratio{deployment}",
    "Variance of the token counts divided by that of independent tokens, at the last decision; 1 "
    "if tokens are routed independently.",
)
NOISE = Family(
    "trimtab_noise_imbalance_ratio{deployment}",
    "Imbalance that random noise alone can look like, at the last decision; mean over layers with "
    "load. It falls as tokens are counted.",
)
DISTRUST = Family(
    "trimtab_distrust_ratio{deployment}",
    "Factor by which moves must gain more because earlier switches did not keep their promise; 1 "
    "if they did, at most 4.",
)
SWITCH_GAIN = Family(
    "trimtab_switch_gain_ratio{deployment,as}",
    "Gain of the last switch that was judged: fall of the sum of squared GPU loads (mean load 1), "
    "mean over the layers changed, as promised by the plan and as realised by the tokens counted "
    "afterwards.",
)
DECISION_DURATION = Family(
    "trimtab_decision_duration_seconds",
    "Time of a decision that planned something, including the wait for the solver.",
    SECONDS,
)
LIVE = Family(
    "trimtab_live_imbalance_ratio{deployment,of,over,layers}",
    "Imbalance (heaviest GPU / mean GPU) now: predicted from the load, measured by the GPUs (only "
    "if workers count what their own slots process), or in shadow mode with the moves it would "
    "have made (shadow). Over the last reports or over the load estimate; of the worst layer, the "
    "median layer, and the mean of layers. Absent while unknown.",
)
WORKERS = Family(
    "trimtab_workers{deployment,state}",
    "Workers of the group with a session (connected) and without one (absent). The last load of an "
    "absent worker still counts.",
)
RANKS = Family(
    "trimtab_ranks{deployment,serving}",
    "Connected workers by the placement they serve with: the current one (in_force), that of the "
    "open switch (next), or any other (other).",
)
EPOCH = Family(
    "trimtab_placement_epoch{deployment}",
    "Epoch of the current placement; each new group of workers begins one. 0 before the first "
    "group.",
)
GENERATION = Family(
    "trimtab_placement_generation{deployment}",
    "Generation of the current placement within its deployment; 0 is the placement that the group "
    "came with.",
)
PLACEMENT_AGE = Family(
    "trimtab_placement_age_seconds{deployment}",
    "Age of the current placement; absent if it predates this server process.",
)
ESTIMATE_AGE = Family(
    "trimtab_estimate_age_seconds{deployment}",
    "Time since the last report of the worker that has been silent for longest; absent before all "
    "workers have reported.",
)
MODE = Family(
    "trimtab_deployment_mode{deployment,mode}",
    "1 for the current mode of the deployment (off, shadow, active, pinned), 0 for the other "
    "modes.",
)
SWITCHED_BY = Family(
    "trimtab_deployment_switched_by{deployment,by}",
    "1 for who moves the weights of the deployment: workers with sessions (workers), or the engine "
    "by itself (engine). 0 for the other.",
)
PAUSED_FOR = Family(
    "trimtab_deployment_paused_info{deployment,reason}",
    "1 while the deployment is paused; the label has the first 100 characters of the reason. "
    "Absent if it is not paused.",
)
MISMATCHES = Family(
    "trimtab_digest_mismatches_total{deployment}",
    "Times that a worker served with, or flipped to, a placement other than the expected one.",
)
APPLIED_MOVES = Family(
    "trimtab_applied_moves_total{deployment}",
    "Expert weights that were moved to another GPU by applied switches.",
)
APPLIED_BYTES = Family(
    "trimtab_applied_bytes_total{deployment}",
    "Bytes of expert weights that were moved to another GPU by applied switches, by the expert "
    "size that workers report.",
)
PHASE_DURATION = Family(
    "trimtab_switch_phase_duration_seconds{phase}",
    "Time that switches spent in each phase (offered, committed, aborting), over all deployments.",
    (*SECONDS, 60, 120, 600),
)
STORE_FAILURES = Family(
    "trimtab_store_failures_total",
    "Failed operations of the store. A failure ends the sessions concerned, unless only counts "
    "could not be saved.",
)
STORE_FAILING = Family(
    "trimtab_store_failing",
    "1 while the store fails, else 0. While it is 1, sessions and changes of deployments are "
    "refused, and health checks answer NOT_SERVING.",
)
HISTORY_LOST = Family(
    "trimtab_history_lines_lost_total",
    "Lines of the history (setting history) that could not be written: the disk was full, or too "
    "slow. The server's log has the reason of each.",
)

FAMILIES = defined_in(globals())
"""All of these, in the order to show them in."""
