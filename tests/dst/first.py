import sys, time, cProfile, pstats
from tests.dst.simulation import Simulation
from tests.dst.observer import Observer
secs=float(sys.argv[1]); seed=int(sys.argv[2]) if len(sys.argv)>2 else 1
o=Observer(stop=False)
with Simulation(seed,o) as sim:
    sim.run(1.0)
    t=time.process_time()
    p=cProfile.Profile() if len(sys.argv)>3 else None
    if p: p.enable()
    sim.run(secs)
    o.settle()
    if p: p.disable()
    print("cpu/h", (time.process_time()-t)/secs*3600, "turns",sim.scheduler.turns, "req",sim.network.requests,"frames",sim.network.frames)
    print(o.counts); print(o.reports); print(o.halts_seen, o.gates_seen, o.worst_u6/1e6)
    for v in o.violations[:6]: print(v.name, v.t_s, v.text); 
    if o.violations: print("\n".join(o.violations[0].events))
    print("pnl", (o.truth.wealth_u6(o.mids())-o.truth.start_cash_u6)/1e6)
    print(sim.digest())
    if p: pstats.Stats(p).sort_stats('tottime').print_stats(45)
