# %% [markdown]
# # What came out, in Python
#
# Run an experiment first (`make demo` runs France). Then open this file as a notebook (VS Code,
# Jupyter with jupytext), or run it as it is: `python examples/notebook.py`. It reads the state
# folder `.loopscope` of the current folder, or the one that `LOOPSCOPE_STATE` names, and changes
# nothing.

# %%
import loopscope

state = loopscope.open()
print(state.experiments.table().T)

# %% [markdown]
# An experiment is asked for by name. It stays as it was at that moment; ask again for news.

# %%
name = next(iter(state.experiments))
experiment = state.experiments[name]
print(experiment.stages())
print(experiment.status["conditions"][0]["message"])

# %% [markdown]
# ## Which latents answer to the concept?
#
# One row a latent of the dictionary. `candidate` marks those that passed the declared selection.

# %%
coarse = experiment.features("coarse")
columns = ["latent", "selectivity", "firing_rate_target", "firing_rate_neutral", "q_value"]
print(coarse.loc[coarse["candidate"], columns].to_string(index=False))

# %% [markdown]
# On which prompts does the best of them fire most?

# %%
best_latent = coarse[coarse["candidate"]].sort_values("selectivity")["latent"].iloc[-1]
top = experiment.top_prompts(best_latent, count=5)
print(top[["activation", "condition", "text"]].to_string(index=False))
print(experiment.activations("coarse"))

# %% [markdown]
# ## What lies below them in the fine dictionary?

# %%
pairs = experiment.pairs()
print(pairs.groupby(["coarse", "reading"]).size().unstack(fill_value=0))
best = pairs.sort_values("cosine", ascending=False).groupby("coarse").head(3)
print(best[["coarse", "fine", "cosine", "correlation", "reading"]].to_string(index=False))
print(experiment.gate()["verdict"], "-", experiment.gate()["reason"])

# %% [markdown]
# ## Does steering along them help?
#
# One row for each opening, arm, strength and sample. The verdict pairs openings; so can you.

# %%
scores = experiment.scores()
table = scores.pivot_table(index="arm", columns="strength", values="concept", aggfunc="mean")
print(table.round(2))
verdict = experiment.verdict()
print(verdict["verdict"], f"{verdict['contrast']}: {verdict['estimate']}", f"n = {verdict['n']}")

# %% [markdown]
# Any other file of `docs/artifacts.md` by its name, and where the verified files lie:

# %%
print(experiment.table("coarse_summary.parquet").describe())
for stage, artifact in experiment.artifacts.items():
    print(f"{stage:9} {artifact.digest[:12]} {', '.join(artifact.files)}")
