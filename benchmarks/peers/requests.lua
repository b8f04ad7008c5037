-- Sends the request bodies of the file PEERS_BODIES, one a line, one after the other, and prints what came of it as JSON.
local requests, place = {}, 0
local headers = {["content-type"] = "application/json", ["authorization"] = os.getenv("PEERS_AUTHORIZATION")}

function init()
  for body in io.lines(os.getenv("PEERS_BODIES")) do
    requests[#requests + 1] = wrk.format("POST", "/graphql", headers, body)
  end
end

function request()
  place = place % #requests + 1
  return requests[place]
end

function done(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
  print(string.format(
    '{"requests": %d, "microseconds": %d, "bytes": %d, "refused": %d, "failed": %d, "late": %d, "p50": %d, "p99": %d}',
    summary.requests, summary.duration, summary.bytes, summary.errors.status, failed, summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
