-- Every request is a session of its own: its header has a value that no other request of this machine had. Without
-- "named" as the argument it has none, and is no session.
local number, prefix, named = 0, os.time() .. "-", false

function init(args)
   named = args[1] == "named"
end

function request()
   number = number + 1
   return wrk.format("GET", "/health", named and { ["x-session"] = prefix .. number } or nil)
end
