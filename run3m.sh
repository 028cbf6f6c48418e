cd /tmp/p; export JAXVFF_CACHE=/tmp/p/cache
.venv/bin/jaxvff train env=smax/3m utility=mlp learner=parallel optimizer=radam env.reward_scale=10 td_lambda=0.6 epsilon_steps=30000 seeds=2 env.compact=false lanes_per_device=1 checkpoint_interval=0 total_steps=200000 eval_interval=20000 eval_episodes=64 lr_final=0.1 lr_steps=200000 "$@"
