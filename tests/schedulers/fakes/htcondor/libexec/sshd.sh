# A fake of HTCondor's sshd.sh, to be sourced: it "starts a daemon", tells machine 0 of it, and waits there for all.
# A line of the contact file: number, machine, port, user, folder, key.
echo "$1 127.0.0.$(($1 + 2)) 4444 $(id -un) $PWD key" >> "$FAKE_MACHINES/contact"
if [ "$1" = 0 ]; then
    while [ "$(wc -l < "$FAKE_MACHINES/contact")" -lt "$2" ]; do sleep 0.05; done
    cp "$FAKE_MACHINES/contact" "$_CONDOR_SCRATCH_DIR/contact"
else
    sleep 1000 &
fi
sshd_cleanup() { echo "$_CONDOR_PROCNO" >> "$FAKE_MACHINES/cleaned"; }
