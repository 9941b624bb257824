from runs.threads import wait_briefly

wait_briefly()  # before torch is imported
