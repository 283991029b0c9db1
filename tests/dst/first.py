import sys, time, cProfile, pstats, collections
from tests.dst.simulation import Simulation
class Obs:
    def __init__(s): s.journal=[]; s.reports=collections.Counter(); s.n=collections.Counter()
    def begin(s,sim): s.sim=sim
    def on_report(s,p,code,text,level):
        s.reports[(p,code)]+=1
        if s.reports[(p,code)]<3: print(f"{s.sim.now_s:8.2f} {p} {level} {code}: {text}")
    def on_crash(s,p,text): print("CRASH",p,text); s.n['crash']+=1
    def on_life(s,n,w): print(f"{s.sim.now_s:8.2f} {n} {w}")
    def on_order(s,order,kind,status,now): s.n[kind]+=1; s.journal.append(f"{now} {order.id} {kind} {status}")
    def on_trade(s,t,now): s.n[t.status]+=1
    def on_level(s,m,side,px,now): s.n['level']+=1
    def on_book(s,m,now): s.n['book']+=1
secs=float(sys.argv[1]); seed=int(sys.argv[2]) if len(sys.argv)>2 else 1
o=Obs()
with Simulation(seed,o) as sim:
    sim.run(1.0)
    t=time.process_time()
    p=cProfile.Profile() if len(sys.argv)>3 else None
    if p: p.enable()
    sim.run(secs)
    if p: p.disable()
    print("cpu/h", (time.process_time()-t)/secs*3600, "turns",sim.scheduler.turns, "req",sim.network.requests,"frames",sim.network.frames)
    print(o.n, o.reports)
    import numpy as np
    a=sim.group.memory.arrays
    from shm_layout.seqlock import SeqlockReader
    r=SeqlockReader(sim.group.memory.attach("account")); r.read(); print({k:r.rec[0][k] for k in r.rec.dtype.names if k!='position'})
    r=SeqlockReader(sim.group.memory.attach("guard")); r.read(); print(r.rec[0])
    r=SeqlockReader(sim.group.memory.attach("targets"))
    from shm_layout.records import gate_names
    for i in range(8):
        if r.read(i)>0: print(i, r.rec[0]['market_id'], gate_names(int(r.rec[0]['gates'])), r.rec[0]['n_quotes'],r.rec[0]['mid_up'],r.rec[0]['q_up'])
    print(sim.digest())
    if p: pstats.Stats(p).sort_stats('tottime').print_stats(45)
