# ftwall as a service. `settings` becomes /etc/ftwall/ftwall.toml; as everywhere, it only monitors until told otherwise.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.ftwall;
  format = pkgs.formats.toml { };
in
{
  options.services.ftwall = {
    enable = lib.mkEnableOption "ftwall, a filter that keeps FastTrack clients from making contact";

    package = lib.mkOption {
      type = lib.types.package;
      description = "The package that has the ftwall program and its unit.";
    };

    settings = lib.mkOption {
      type = lib.types.submodule {
        freeformType = format.type;
        options.mode = lib.mkOption {
          type = lib.types.enum [ "enforce" "monitor" "off" ];
          default = "monitor";
          description = "What is done about hosts of which no policy speaks.";
        };
      };
      default = { };
      example = { inside = [ "192.168.1.0/24" ]; mode = "enforce"; };
      description = "What /etc/ftwall/ftwall.toml says; `ftwall check --schema` prints what it may say.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."ftwall/ftwall.toml".source = format.generate "ftwall.toml" cfg.settings;

    # The unit is the one that is shipped, with this system's paths.
    systemd.packages = [ cfg.package ];
    systemd.services.ftwall = {
      wantedBy = [ "multi-user.target" ];
      path = [ pkgs.nftables pkgs.iptables ];
      reloadTriggers = [ config.environment.etc."ftwall/ftwall.toml".source ];
      serviceConfig = {
        ExecStartPre = [ "" "${cfg.package}/bin/ftwall check" ];
        ExecStart = [ "" "${cfg.package}/bin/ftwall run" ];
      };
    };
  };
}
